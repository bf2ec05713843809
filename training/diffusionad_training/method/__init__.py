"""The paper's method: its equations, losses and ways to restore, as pure functions and modules."""
