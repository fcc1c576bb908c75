"""Attribution methods: maps of how much each pixel matters to a class."""
