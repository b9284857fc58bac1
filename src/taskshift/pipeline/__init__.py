"""One net, trained for a while or brought along, and every look at its loss landscape, in one folder."""
