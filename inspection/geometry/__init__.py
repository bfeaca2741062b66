"""Where things are in a frame: registration to a golden image, regions to judge, tiles of large frames.

Places are (x, y) from the left and top edge of the frame in pixels, edges counting: the middle of the first pixel is
(0.5, 0.5).
"""
