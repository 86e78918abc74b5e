"""What is asked of trained SAEs: matching between runs, co-activation and bridges, retrieval.

Arrays in, arrays out; nothing here reads files.
"""
