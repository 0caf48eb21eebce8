"""heartseg: traceable heart segmentation models for echocardiography."""
