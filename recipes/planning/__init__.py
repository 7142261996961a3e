"""What a recipe will take, worked out before anything runs: arithmetic on its sizes, and measured stages scaled up."""
