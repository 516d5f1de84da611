"""What only a ComfyUI page needs: progress, run names, image conversion, curve feed, routes, scorer files."""
