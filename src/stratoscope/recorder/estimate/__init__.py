"""What a recording will cost: measured on a few of its batches, before anything is recorded."""
