"""The tables that SQL cannot make alone: what the SAE room computes, put into rows. One file a group of tables."""
