"""The trial of the audit: an adversary who knows the code, and honest worlds that are hard to judge (`make trial`)."""
