"""What answers, without torch and fastai: the forms of pictures, the table of answers, ONNX."""
