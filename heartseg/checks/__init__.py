"""What `heartseg doctor` looks at: nodes, data; the tracking server and Ray are in their rooms."""
