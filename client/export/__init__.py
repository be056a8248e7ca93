"""What leaves the wearable at the wearer's explicit command: everything for the wearer, labelled spans for a study."""
