"""All input and output, one product per module. No module here decides anything about fraud."""
