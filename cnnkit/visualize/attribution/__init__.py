"""Attribution methods: maps of how much each pixel contributes to a class's score."""
