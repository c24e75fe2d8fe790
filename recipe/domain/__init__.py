"""What nano can be asked, as data (`*.yaml`), and its loader."""
