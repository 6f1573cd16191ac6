"""The targets and auths files: text in, model out."""
