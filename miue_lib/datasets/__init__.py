"""Pictures that ship with the library; see README.md beside this file."""
