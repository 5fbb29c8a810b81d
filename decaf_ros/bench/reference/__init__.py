"""What is measured and tested against: the method written down plainly, and the libraries' own ways."""
