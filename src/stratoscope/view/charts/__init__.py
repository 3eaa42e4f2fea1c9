"""Charts over the layers: profiles of classes of prompts, and what the charts of reports share with them."""
