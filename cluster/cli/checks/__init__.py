"""What `rayscope doctor` looks at: each check is one small function that reads and changes nothing."""
