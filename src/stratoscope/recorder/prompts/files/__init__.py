"""Files of prompts as people have them: read where the meaning is plain, else refused with a line that converts."""
