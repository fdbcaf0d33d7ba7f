"""What the notebooks need: set-up, exercises that check themselves, widgets."""
