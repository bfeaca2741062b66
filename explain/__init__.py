"""Why an image is anomalous: attributions of the score, with proof of their faithfulness."""
