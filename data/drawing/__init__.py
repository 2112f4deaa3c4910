"""How the images of the default data set are drawn."""
