"""Train networks through sequences of tasks that shift; measure their plasticity and their loss landscape."""
