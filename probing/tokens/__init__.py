"""A text coloured by a probe's score, token by token: in a terminal, a notebook, a page."""
