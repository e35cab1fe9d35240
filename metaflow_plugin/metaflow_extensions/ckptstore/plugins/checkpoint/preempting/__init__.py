"""What happens when the machine is about to go away."""
