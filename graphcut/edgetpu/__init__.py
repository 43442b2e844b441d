"""The Edge TPU and its compiler: costs of files, operator checks, compiling, and reading compiled files."""
