"""What a reading reports besides the market: clocks, disks, and whether the books agree."""
