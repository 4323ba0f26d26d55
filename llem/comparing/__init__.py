"""Groups of runs compared: who is meant, figure by figure, and what else differs between them."""
