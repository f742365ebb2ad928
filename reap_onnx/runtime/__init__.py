"""Running models: sessions, probes, statistics, comparison, latency. The only room that imports onnxruntime."""
