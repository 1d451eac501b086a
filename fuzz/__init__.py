"""Changes files at random and looks for a reader that ends in anything but a result or a message."""
