"""What all pages and pictures share: heat maps, histograms and the look."""
