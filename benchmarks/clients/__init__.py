"""Load generators that are compared with llem: how each is installed, asked, and read."""
