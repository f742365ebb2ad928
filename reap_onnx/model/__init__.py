"""Models: read, index, take parts of, edit constants of, write. The only room that imports onnx_graphsurgeon."""
