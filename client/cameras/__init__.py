"""Where events and frames come from: one protocol, one file for each kind of camera."""
