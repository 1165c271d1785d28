"""End to end on a real cluster: images, chart, storage and jobs as a user has them; nothing is faked but the GPU."""
