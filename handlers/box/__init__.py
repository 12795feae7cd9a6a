"""Box as a target: accounts, groups, collaborations on the folders that policy names, sessions, hand-over of content."""
