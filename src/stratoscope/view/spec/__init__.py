"""A picture as data: its typed content, scales, pooling and colours, and the bytes that every renderer reads."""
