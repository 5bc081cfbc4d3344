"""The served model as a traced graph, in words that every format and quantizer holds."""
