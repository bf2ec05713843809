"""The two networks of DiffusionAD; they know no losses, no data and no loops."""
