"""The Edge TPU and its compiler: what files take on the chip, whether they are accepted, compiling, reading."""
