"""Files for the machine around the program: the udev rule and systemd units; `docs/client.md` says where they go."""
