"""jcnn's ops against PyTorch's, where their semantics coincide; where they do not: docs/differences.md."""
