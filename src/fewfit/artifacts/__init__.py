"""What is kept, as files: data only, checked byte by byte when it is read."""
