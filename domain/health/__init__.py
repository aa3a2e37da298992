"""What a reading reports besides the market (clocks, disks, whether the books agree), and which troubles are already known."""
