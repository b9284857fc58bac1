"""A user's net, loss and loader turned into surfaces, and these sampled: every number of the Writer is made here."""
