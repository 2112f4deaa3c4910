"""Label files of every format -> which labels are on which image."""
