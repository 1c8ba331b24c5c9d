"""The hot loops, one file per operation; they know nothing of the rest of the library but how to refuse an argument."""
