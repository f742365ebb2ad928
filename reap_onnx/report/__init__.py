"""Reports: plain values, and the console, HTML and JSON made from them."""
