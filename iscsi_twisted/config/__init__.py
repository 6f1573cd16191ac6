"""The targets and auths files: text in, model out; no extent is ever opened here."""
