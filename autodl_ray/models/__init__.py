"""The zoo of networks, their weights, frozen features, and the predictor that runs what is exported."""
